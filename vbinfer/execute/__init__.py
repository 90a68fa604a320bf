"""Where simulations run and where finished ones are kept."""
