"""Corpora from recipes: a weighted mixture of sources, tokenized in parallel into one and the same shards.

The way of a document, file by file:

    file, recipe   a recipe in YAML names sources, weights, a tokenizer and evaluation text
    hub            sources that are data sets; those that are files go through `tuneopt.data.readers`
    units          a source falls into units, which depend on its files alone; encoding one gives a row per document
    guard          rows of training text that equals or quotes evaluation text are marked, and train nothing
    workers        any process can encode a unit, in any order
    mixture        one process draws documents from the encoded units, in the order that the recipe determines,
    rounds         and writes them into shards, round by round, so that a kill loses one round at most
    run            the whole, from whatever an earlier attempt left; the manifest comes last

So the shards are the same bytes however many processes encode, and whatever was killed in between.
"""
