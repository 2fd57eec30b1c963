"""Images, tensors and SKNet. Knows nothing of HTTP; imports nothing heavy until asked."""
