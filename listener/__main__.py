"""`python -m listener` is `smearlink`, where no script was installed."""

from listener.cli.app import main

if __name__ == "__main__":
    main()
