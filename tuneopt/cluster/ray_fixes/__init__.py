"""What Ray 2.60 does that a run must not suffer from, a file for each kind, with the reason and where it is known.

| file | Ray by itself | known upstream as (ray-project/ray) |
|---|---|---|
| `access` | opens its ports on every network interface; leaves its token readable by others | 19702, 59852 |
| `folder`, `janitor` | keeps every session's folder, and its processes outlive a killed driver | 41202, 2005, 26118 |
| `lost` | lets a driver wait for ever when the raylet or the control service under it dies | 20239, 24969 |
| `rendezvous` | lets the store at which ranks meet listen on every network interface | - |
| `lost` | sets handlers of its own for SIGTERM while it starts, which end the driver without a word | - |
| `output` | prints what raylets report on the driver's stdout, and twenty lines for a refused connection | 9654 |

`tuneopt.cluster.session` enters them around a connection, in an order that matters and is said there.
"""
