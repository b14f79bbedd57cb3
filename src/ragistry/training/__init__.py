"""Training: a `Trainer` fits an encoder with a `Loss` over examples drawn by a `Sampler`."""
