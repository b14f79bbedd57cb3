"""One module per named retriever: a recipe that builds it."""
