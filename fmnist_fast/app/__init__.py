"""Streamlit app: a module for each page, and the modules that pages share.

May import every package but `cli`.
"""
