"""Corpora from recipes: a weighted mixture of sources, tokenized in parallel into one and the same shards.

A recipe (`file`) names sources. A source falls into units (`units`), which depend on its files alone. Any process can
encode a unit (`rows`); one process draws documents from the encoded units in the order that the recipe determines
(`mixture`) and writes them into shards, round by round (`rounds`). So the shards are the same bytes however many
processes encode, and whatever was killed in between (`run`).
"""
