"""Small encoders for wearable sensors."""

from kdcore import hookimpl


@hookimpl
def register_encoders(register):
    """Announce the encoders."""
    register("cnn1d", "kdcore_wearable.cnn:Cnn1d")
    register("cnn2d", "kdcore_wearable.cnn:Cnn2d")
    register("lstm", "kdcore_wearable.lstm:Lstm")
