-- Note that these hours are rolled up as of then; readers trust that a moment later.
INSERT INTO ratchet.hours_log (source, task, hour, rolled_upto, live_until)
SELECT
    {source:String},
    {task:String},
    arrayJoin({hours:Array(DateTime('UTC'))}),
    {upto:DateTime64(6, 'UTC')},
    now64(6) + toIntervalMillisecond({live_ms:UInt32})
