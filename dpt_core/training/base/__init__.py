"""Training the demo's base model: text encoder, autoencoder, denoiser."""
