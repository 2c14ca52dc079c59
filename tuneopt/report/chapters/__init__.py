"""The chapters of a comparison, one to a file: each reads the analysis and gives its findings, figures and tables."""
