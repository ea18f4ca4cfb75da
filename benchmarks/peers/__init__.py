"""What runs in the peers' own environment, which `setup.sh` makes: their code is run there, nothing copied."""
