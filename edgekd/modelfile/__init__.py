"""Model files read: operators, contract, labels, memory, and runtimes that run them."""
