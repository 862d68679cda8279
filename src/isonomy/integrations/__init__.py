"""Callbacks for training frameworks, each in a module that is imported by who has the framework."""
