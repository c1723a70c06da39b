"""``python -m resegeo_cli``."""

from .main import main

if __name__ == "__main__":
    main(prog_name="resegeo")
