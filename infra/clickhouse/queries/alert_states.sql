-- How do these alerts stand?
SELECT toString(id) AS alert, state FROM ratchet.alerts WHERE id IN {ids:Array(UUID)}
