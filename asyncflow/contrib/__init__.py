"""Tasks for particular kinds of work, each a module of its own. ``import asyncflow`` loads none of them."""
