"""The folder that firmware takes over: files, contract, decoder, golden vectors, manifest."""
