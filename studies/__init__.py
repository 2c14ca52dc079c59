"""Study files that come with tuneopt (`tuneopt.search.study.file`): the paper's, one for a laptop, one for tests."""
