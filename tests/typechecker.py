"""The runtime type checker of the suite: beartype, with an int where a float is expected, as PEP 484 has it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
