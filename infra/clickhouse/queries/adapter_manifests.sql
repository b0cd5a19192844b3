-- Every adapter's manifest, in the order of registration.
SELECT manifest FROM ratchet.adapters ORDER BY at, name
