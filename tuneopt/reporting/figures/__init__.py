"""Figures of the report: for each an info function, which gives pure data, and the drawer that sees nothing else.

A pair stands in one file with its subject. An info states what the figure claims, in which units, by which rule it
marks or leaves things out, and where the method comes from; its drawer states why it looks as it does. What drawers
share is in `tuneopt.reporting.drawing`. For a notebook, ``draw_x(x_info(...)).figure()`` is a plotly figure.
"""
