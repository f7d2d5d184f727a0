def synchronise_norms(n, g):
    pass
