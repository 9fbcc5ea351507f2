"""What a model directory says, made into prompts and plans for whoever asks the model."""
