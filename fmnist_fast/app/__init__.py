"""The Streamlit app: one module for each page, and what pages share.

May import every package but `cli`.
"""
