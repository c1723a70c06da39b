"""``python -m resegeo_cli``."""

from resegeo_cli.main import main

if __name__ == "__main__":
    main(prog_name="resegeo")
