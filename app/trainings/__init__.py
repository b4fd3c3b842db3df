"""Trainings of models for a library: a retriever, and an adaptor."""
