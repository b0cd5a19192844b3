-- How is each table of this database stored?
SELECT name, engine_full FROM system.tables WHERE database = {database:String}
