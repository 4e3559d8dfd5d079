"""Records, errors and small tools that the whole package stands on."""
