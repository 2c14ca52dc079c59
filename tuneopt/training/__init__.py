"""Training: from a specification to its record, in one process or on many ranks.

Read `loop` first, then `parallel`. Around them: `building` (model, loss, optimizer), `batches` (data),
`schedule`, `checkpoint` with `mirror`, `run` (a trial for a ledger), `launch` and `ranks` (several processes), `zero`
(sharded training) and `second_order` (Hessian estimates). `fitting` and `memory` say what fits into a device. `config`,
`memory`, `kernels` and `launch` import no torch, so that plans and the command line stay quick.
"""
