"""The chapters of a comparison, one to a file: each reads the analysis and gives its findings, figures and tables.

A chapter's ``lead`` says in a few sentences what it finds. A chapter that no input fills has no blocks, and its lead
says which runs would fill it; the page lists those under "Not in this report".
"""
