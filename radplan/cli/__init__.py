"""The command line of radplan, one module for each verb."""
