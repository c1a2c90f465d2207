"""An address that holds a password, on the command line."""
