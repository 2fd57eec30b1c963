"""One file per family of routes: parse, one call of the classifier, a schema. Nothing else happens here."""
