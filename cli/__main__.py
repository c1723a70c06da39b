"""``python -m resegeo_cli``."""

from .main import program

if __name__ == "__main__":
    program()
