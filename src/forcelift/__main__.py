"""`python -m forcelift` is the command `forcelift`."""

from forcelift.cli import main

if __name__ == "__main__":
    main()
