"""What else the repository has: documents, examples, the benchmark."""
