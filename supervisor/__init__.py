"""The process that owns config and listeners, and the command line that talks to it."""
