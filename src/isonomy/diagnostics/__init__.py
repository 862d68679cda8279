"""Looking at balanced training: reusable figures. Needs ``isonomy[plot]``; imports the core, never the reverse."""
