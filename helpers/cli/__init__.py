"""The commands of `python3 -m helpers`; the course itself needs none."""
