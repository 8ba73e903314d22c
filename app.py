"""`streamlit run app.py`. The pages are in fmnist_fast/app/, so that a wheel has them."""

from fmnist_fast.app.main import show

if __name__ == "__main__":
    show()
