"""The papers' tables and figures, each a file that says what is trained: by ``isonomy run NAME``."""
