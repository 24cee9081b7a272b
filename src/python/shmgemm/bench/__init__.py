"""`shmgemm bench`: what commands, products and a real model cost, each beside its floor."""
