"""Refining: the chosen traces of a domain, tidied by rules or a teacher and checked again."""
