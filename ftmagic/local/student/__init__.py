"""The built-in student: a 1.4M-parameter copy model, its weights and the recipe that made them."""

from pathlib import Path

STUDENT_DIR = Path(__file__).parent
"""A Hugging Face model folder: config.json, model.safetensors and the tokenizer's files."""
