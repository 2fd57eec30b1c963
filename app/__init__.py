"""HTTP around `model/`. Imports no torch: what needs a framework stays behind the façade in `app.classifier`."""
