"""The store of training images, what fills it, and the data module that feeds it to training."""
