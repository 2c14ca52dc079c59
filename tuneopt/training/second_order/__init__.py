"""Second derivatives of the loss, for optimizers that ask for them (Sophia): Hessian-vector products and their memory.

`hessian` makes the estimate; `layers` lets attention and whole layers be differentiated twice with little memory.
"""
