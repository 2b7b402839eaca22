"""The images that stages run in: a folder each with its Dockerfile, the map of their references, and how they are built.

python -m images build | push | base; see images/README.md.
"""
