"""What a runtime demands of a file."""
